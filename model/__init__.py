"""What the numbers mean: the one definition that training, export and service share."""
