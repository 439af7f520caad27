"""What is compared within a folder's results, and across them."""
