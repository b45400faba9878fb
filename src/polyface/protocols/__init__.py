"""Published ways to judge a model: which faces are compared with which."""
