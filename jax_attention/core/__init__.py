"""The bottom floor: structs and parts, numerical guards, input checks. It imports nothing else of the library."""
