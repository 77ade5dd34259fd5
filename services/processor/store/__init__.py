"""The processor's statements. One function, one statement, named by what it does.

Every change of state is a conditional UPDATE that says the state it expects; whatever depends on
the change is written by the same statement, from the rows that it really changed. Give rows sorted
by key, so that two batches which share some meet them in one order.
"""
