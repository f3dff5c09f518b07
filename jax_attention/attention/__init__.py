"""Dispatch: checks the call, regroups heads, chooses an implementation. The public functions live here."""
