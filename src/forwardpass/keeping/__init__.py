"""What a module holds, what a pass changed of it, and putting that back."""
