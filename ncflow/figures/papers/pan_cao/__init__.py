"""Pan, Cao: Towards understanding neural collapse: the effects of batch normalization and weight decay."""
