"""Commands of `python -m services.classifier`, one module each."""
