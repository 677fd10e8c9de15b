"""What a reader sees: HTML pages and the pictures in them."""
