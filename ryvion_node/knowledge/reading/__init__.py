"""Files as text: each format by a well-kept library, in a process of its own."""
