"""Models, data and features of somebody else, from files, folders and names, after their training."""
