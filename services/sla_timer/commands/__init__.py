"""Questions about promises and peak hours, answered on the command line: one module per group of commands.

Each module has `register(commands)`: it adds its commands to the parser and sets `run`, a function of the parsed
arguments that returns the exit status. Nothing here is imported by the running service.
"""
