"""PTX instructions as Python functions: one instruction, one function, named after it."""
