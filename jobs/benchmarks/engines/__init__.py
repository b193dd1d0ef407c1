"""Our job beside other engines that people take for the same work: the same photos, network and cores."""
