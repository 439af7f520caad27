"""What commands show at the terminal."""
