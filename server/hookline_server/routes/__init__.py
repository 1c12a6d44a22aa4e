"""The routes, one module per resource; each has ``routes``, which ``app`` puts together."""
