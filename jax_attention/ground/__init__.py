"""The ground floor: what a value is, how numbers are guarded, and how inputs are checked. Imports nothing of ours."""
