"""What the client and the commands are made of."""
