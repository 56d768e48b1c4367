"""One kind of picture a file. matplotlib is known here alone."""
