"""What the verbs pass around. Nouns are frozen; those that are data go to JSON and back."""
