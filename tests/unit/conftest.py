"""With this, modules beside it can be imported by all unit tests."""
