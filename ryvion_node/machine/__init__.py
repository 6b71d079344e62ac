"""What the machine's owner is doing with it: load, temperature, power."""
