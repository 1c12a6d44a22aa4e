"""The server: HTTP, the command language, webhooks and orchestrations over the engine."""
