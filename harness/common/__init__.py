"""What all parts may use: text, progress, the style of plots."""
