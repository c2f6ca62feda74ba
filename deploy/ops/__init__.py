"""Operations as commands: `python -m deploy.ops <noun> [<verb>]`, told in docs/operations.md. One module per noun."""
