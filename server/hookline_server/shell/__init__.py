"""``hookline shell``: a prompt for the command language."""
