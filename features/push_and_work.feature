Feature: Work is pushed once and done once
  A job goes in with one call and comes out of a queue with another. Whoever took it says how it went.

  Background:
    Given a running server

  Scenario: A job is pushed, taken and completed
    When I push the job "photo-17" to "thumbnails" with the body {"file":"17.jpg"}
    Then the job "photo-17" in "thumbnails" is waiting
    When a worker fetches from "thumbnails"
    Then it gets the job "photo-17" as attempt 1 with the body {"file":"17.jpg"}
    And the job "photo-17" in "thumbnails" is active
    When the worker reports that it is done with the result {"bytes":5123}
    Then the job "photo-17" in "thumbnails" is completed
    And its history is push, fetch, complete

  Scenario: The same job is not pushed twice
    When I push the job "invoice-1" to "mail" with the body 1
    And I push the job "invoice-1" to "mail" with the body 2
    Then the push says that the job was there already
    And "mail" has 1 waiting job

  Scenario: A batch is all or nothing
    When I push to "mail" the batch {"jobs":[{"id":"a","body":1},{"id":"b","body":2,"priority":999}]}
    Then the call is refused with status 422 and the code "invalid"
    And there is no job "a" in "mail"

  Scenario: The same call is not done twice
    When I push the body 1 to "mail" under the idempotency key "order-7"
    And I push the body 1 to "mail" under the idempotency key "order-7"
    Then "mail" has 1 waiting job
    When I push the body 2 to "mail" under the idempotency key "order-7"
    Then the call is refused with status 409 and the code "idempotency_conflict"

  Scenario: A result may bring further jobs, in the same change
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker reports that it is done and pushes the job "mail-1" to "mail"
    Then the job "order-1" in "orders" is completed
    And the job "mail-1" in "mail" is waiting

  Scenario: The command line does the same
    When I run "millpond push greetings '{\"to\":\"ann\"}' --id hello"
    Then the command succeeds
    And the job "hello" in "greetings" is waiting
