-- What do the most anomalous photos look like? The 100 most anomalous, each with where its overlay (JPEG) and its float maps lie.
-- Both are null for a photo that no run has explained.
SELECT
    latest.category,
    latest.site,
    latest.p_value,
    latest.tail_rank,
    latest.is_anomaly,
    maps.overlay_uri,
    maps.maps_uri,
    latest.image_uri,
    latest.box
FROM latest
LEFT JOIN maps
    ON
        latest.image_uri = maps.image_uri
        AND coalesce(latest.image_etag, '') = coalesce(maps.image_etag, '')
        AND latest.box IS NOT DISTINCT FROM maps.box
        AND latest.detector_id = maps.detector_id
WHERE latest.status = 'scored'
ORDER BY coalesce(latest.tail_rank, latest.p_value), latest.p_value, latest.image_uri, latest.box
LIMIT 100;
