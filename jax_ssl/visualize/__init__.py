"""Pictures of what a run saw, did and learned."""
