"""How large a cluster has to be: from measured costs to cores, bandwidth, hours and money."""
