"""What tests share, importable by every member. Product code never imports it."""
