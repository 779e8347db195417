"""What people and programs reach over HTTP: the REST API, the page, tokens."""
