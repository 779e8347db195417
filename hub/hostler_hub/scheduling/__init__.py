"""Which build goes to which worker, which workers are to be up, and why not."""
