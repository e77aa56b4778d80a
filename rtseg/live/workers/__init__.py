"""The processes of a feed, one file each; each imports only what its own work needs."""
