"""Programs that write the generated files of `docs/`: pictures of rules, pictures of `viz`, and the list of files."""
