"""How fast one forward is: attention backends, row kernels, fp8 linears, our own forward."""
