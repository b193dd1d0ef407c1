-- What could not be scored, and why? By the reason code, which stands before the colon. A photo counts once, as it is now.
SELECT
    category,
    status,
    split_part(error, ':', 1) AS reason,
    count(*) AS photos,
    max(attempt) AS most_attempts,
    min(image_uri) AS example
FROM latest
WHERE status <> 'scored'
GROUP BY category, status, split_part(error, ':', 1)
ORDER BY photos DESC, category, status, reason;
