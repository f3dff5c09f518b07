"""Research questions, one folder each. They use the library and are imported by nothing in it."""
