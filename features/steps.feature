Feature: A job remembers what it has done, and waits without a worker
  What a step stored is kept with the job and is not done again by later attempts. A job that sleeps, or waits for a
  signal or for a child, gives its worker back and uses no attempt.

  Background:
    Given a running server

  Scenario: A stored step outlives the attempt and the server
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker stores the step "charge" with the result {"charge":"ch_1"}
    And the worker reports the error "the printer is on fire" and wants to try again at once
    And the server is killed and started again
    And a worker fetches from "orders"
    Then it gets the job "order-1" as attempt 2
    And the job "order-1" in "orders" has stored {"charge":"ch_1"} as "charge"
    When the worker stores the step "charge" with the result "another"
    Then the step was there already with the value {"charge":"ch_1"}

  Scenario: A lease that is gone stores nothing
    Given the job "order-1" in "orders" was fetched by a worker
    When I cancel the job "order-1" in "orders"
    And the worker tries to store the step "charge"
    Then the call is refused with status 409 and the code "cancelled"

  Scenario: A job sleeps and goes on, without using an attempt
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker sleeps in step "cool-down" for 50 ms
    Then a worker that waits on "orders" gets the job "order-1" as attempt 1

  Scenario: A job waits for a signal
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker waits for the signal "approved"
    Then the job "order-1" in "orders" is suspended
    And its explanation says "it waits for signal `approved` until"
    When the server is killed and started again
    And I run "millpond signal orders order-1 approved --body '{\"by\":\"ada\"}'"
    Then the command succeeds
    And it prints "approved: delivered; the job is waiting"
    When a worker fetches from "orders"
    Then it gets the job "order-1" as attempt 1
    And the job "order-1" in "orders" has stored {"by":"ada"} as "approved"

  Scenario: A signal that comes early is kept
    Given the job "order-1" in "orders" with the options {}
    When I signal "approved" to the job "order-1" in "orders"
    And a worker fetches from "orders"
    And the worker waits for the signal "approved"
    Then the job "order-1" in "orders" is waiting

  Scenario: A signal that does not come
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker waits for the signal "approved" for 50 ms
    Then a worker that waits on "orders" gets the job "order-1" as attempt 1
    And the step "approved" of "order-1" in "orders" is of the kind "timeout"

  Scenario: A job that has ended cannot be signalled
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker reports that it is done
    And I signal "approved" to the job "order-1" in "orders"
    Then the call is refused with status 409 and the code "wrong_state"

  Scenario: A job waits for its child
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker waits in step "resize" for the child "image-1" in "images"
    Then the job "order-1" in "orders" is waiting-children
    When a worker fetches from "images"
    And the worker reports that it is done with the result "small.png"
    Then the job "order-1" in "orders" is waiting
    And the job "order-1" in "orders" has stored "small.png" as "resize"

  Scenario: Another life with and without what was stored
    Given the job "order-1" in "orders" was fetched by a worker
    When the worker stores the step "charge" with the result 1
    And the worker fails it for good with the error "no stock"
    And I redrive the job "order-1" in "orders"
    Then the job "order-1" in "orders" has 1 stored step
    When I cancel the job "order-1" in "orders"
    And I run "millpond job order-1 orders restart"
    Then the job "order-1" in "orders" has 0 stored steps
