"""One module for each framework, imported only when it is asked for."""
