"""How `make docs` turns the pages of the repository into the site."""
