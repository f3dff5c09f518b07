"""The bottom floor: structs and parts, numerical guards, input checks. Imports nothing else of the library."""
