"""Getting the data of a head: download, check, unpack."""
