"""The API's statements, by what they are about: one function, one statement."""
