"""What people may ask of their data: erase it, check that, export it; and data that has grown old."""
