"""Research questions, one typed file each. They use the library and are imported by nothing in it."""
