"""The notifier's statements. One function, one statement, named by what it does."""
