"""What people and their programs reach over HTTP, one concern per module."""
