-- What could not be scored, and why? By the reason code, which stands before the colon. A photo counts once, by its newest row.
-- scored_before: those of them whose bytes have a score of before; that one is in the view latest.
SELECT
    newest.category,
    newest.status,
    split_part(newest.error, ':', 1) AS reason,
    count(*) AS photos,
    sum(CASE WHEN latest.status = 'scored' THEN 1 ELSE 0 END) AS scored_before,
    max(newest.attempt) AS most_attempts,
    min(newest.image_uri) AS example
FROM (
    SELECT *, row_number() OVER (PARTITION BY image_uri, box ORDER BY scored_at DESC, run_id DESC) AS place
    FROM scores
) AS newest
INNER JOIN latest
    ON newest.image_uri = latest.image_uri AND newest.box IS NOT DISTINCT FROM latest.box
WHERE newest.place = 1 AND newest.status <> 'scored'
GROUP BY newest.category, newest.status, split_part(newest.error, ':', 1)
ORDER BY photos DESC, newest.category, newest.status, reason;
