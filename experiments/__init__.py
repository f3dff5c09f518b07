"""Research questions, one folder each. Experiments use the library; nothing in the library imports them."""
