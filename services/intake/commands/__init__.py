"""Commands of `python -m services.intake` that need more than a page."""
