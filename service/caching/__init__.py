"""What is remembered between requests: keys, the process's own memory, Redis."""
